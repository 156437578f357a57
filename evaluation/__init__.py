"""Score predictions as the Light My Cells challenge does."""
