"""Places that hold images, weights and runs: object stores (s3://, gs://) and folders, by one interface."""
