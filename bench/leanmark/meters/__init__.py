"""What is read around a block: each meter starts, stops and knows where its number comes from."""
