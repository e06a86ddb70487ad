"""What training and sharded work share: devices, threads, processes."""
