"""What other people's networks need to come in: hidden methods, their own code, what their answers depend on."""
