"""The outside world, one file per thing that is adapted."""
