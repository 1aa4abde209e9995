"""How every process here that reads images or opens a model has its libraries behave."""

from __future__ import annotations

import logging
import os
import warnings


def set_up_libraries() -> None:
    """Threads, and silence where a library would put values from a header into a warning."""
    warnings.filterwarnings("ignore", module="pydicom")
    # MONAI tells every process that it misses a decoder nobody asked for.
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE
    import torch

    torch.set_num_threads(int(os.environ.get("HILUM_TORCH_THREADS") or len(os.sched_getaffinity(0))))
