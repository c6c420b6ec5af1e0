"Lightning modules, checkpoints, resuming: how each network is trained."
from instsep._moved import forward

__getattr__ = forward("training")
