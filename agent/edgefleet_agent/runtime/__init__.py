"""Models as processes: engines, the trial, the workers, the swap. Importing it loads no runtime."""
