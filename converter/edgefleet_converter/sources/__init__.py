"""Kinds of model that come in, one file each."""
