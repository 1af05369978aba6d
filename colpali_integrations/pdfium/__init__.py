"""pdfium: reading pages of PDFs, and the program that reads them within limits in a process of its own.

The program must start quickly, so nothing here imports NumPy or Pillow.
"""

__all__: list[str] = []
