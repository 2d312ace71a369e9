"""ULMFiT on characters: tables of texts, a vocabulary, a language model with tied weights, a classifier, its stages."""
