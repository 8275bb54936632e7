//! Linux TUN devices: queues, batches, async reads and writes
