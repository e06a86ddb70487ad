"""What training and sharded work share: the loop, checkpoints, devices, threads, processes."""
