"""What can be watched while a job runs: the catalogue of series, read from the run folder, served to Prometheus."""
