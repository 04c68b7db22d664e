"""The control room: who gets what, when, and when to stop."""
