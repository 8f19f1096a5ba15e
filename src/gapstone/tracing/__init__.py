"""What a forward pass did: its calls, where positions lie in the image, what each output depends on."""
