"""One change to a model, one file, one signature: a file in, a file out, run in a worker."""
