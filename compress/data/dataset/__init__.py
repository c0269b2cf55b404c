"""What every kind of data set is made of: cases, images, masks, tiles, and what may be wrong with them."""
