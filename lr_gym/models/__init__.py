"""Language models: plain `torch.nn.Module`s, one file each."""
