"""The parts of `gpu_queue.py`, one module each."""
