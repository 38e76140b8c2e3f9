"""Vectors of words and documents."""

from jgd.text.words import WordVectors, encode_documents, position_encoding, ppmi_vectors, skipgram_vectors

__all__ = ["WordVectors", "encode_documents", "position_encoding", "ppmi_vectors", "skipgram_vectors"]
