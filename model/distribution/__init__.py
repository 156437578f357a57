"""Prediction by Dask workers, on this machine or as jobs of a cluster; the extra ``distribute`` installs Dask."""
