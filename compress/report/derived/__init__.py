"""What follows from a report; all of its forms take numbers and sentences from here."""
