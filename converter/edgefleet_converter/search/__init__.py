"""The search for the int8 recipe of a model: candidates are made, measured and compared.

wishes, candidate, figures, ranking, mixing, barred    [core]
cache, entry                                           what was made once is not made again
workshop, running, hunt                                the shell: worker processes in, a choice out
"""
