"""The bundle `brain_mask`: a MONAI bundle (configs, scripts, models) with its Hilum manifest."""
