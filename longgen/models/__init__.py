"""Model families: thin adapters over unmodified diffusers classes."""

import logging

# diffusers imports xformers wherever it is installed, and xformers tells at every start that its CUDA extensions do not
# fit a CPU build of torch. `longgen doctor` tells it once, where it matters.
logging.getLogger("xformers").setLevel(logging.ERROR)
