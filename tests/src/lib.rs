//! Exchange simulator, namespace lab, consumer.
