"""The U-Net itself, in torch: network, devices, losses, augmentation."""
