"""kfp's PipelineSpec: read, checked, and parsed once into trees."""
