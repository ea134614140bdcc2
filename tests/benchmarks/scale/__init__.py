"""What commands cost on long studies: seconds, memory, bytes on disk, reads of the journal."""
