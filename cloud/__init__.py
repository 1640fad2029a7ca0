"""The cloud: takes what devices report, decides, stores and tells people. Start reading at `pipeline.py`."""
