"""What was measured, and the forms people and programs read it in."""
