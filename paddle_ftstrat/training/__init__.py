"""Training itself: data and its order, the loop, evaluation, precision, several processes, random numbers."""
