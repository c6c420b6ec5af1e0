"Networks and weights by name, and recordings of any length, window by window."
from instsep._moved import forward

__getattr__ = forward("inference")
