"""Gates, one word a file: what a recipe allows. What they share lies in judging/."""
