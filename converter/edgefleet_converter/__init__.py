"""The desk: a trained model in, a signed bundle out."""
