"""Publishing pairs on the hub: what may be uploaded, the dataset card, the upload in one commit."""
