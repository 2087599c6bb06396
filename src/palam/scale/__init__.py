"""Reading a corpus: one reader of batches, and what runs several of them."""
