"""JGD: make graphs, teachers and samplers smaller without losing what they know."""
