"""Readers and writers of file formats: packages, archives, disks, kernel images and modules, signatures."""
