"What is played: notes, pieces and tokens. Symbols, no sound."
