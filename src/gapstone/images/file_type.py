"""`file_type` recognises files that are no readable images, and says what they are and what to do."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript/EPS file, which is a program, not an image"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript/EPS file, which is a program, not an image"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image; convert it to PNG or TIFF"),
    (0, b"#?RADIANCE", "a Radiance HDR image; convert it to PNG or TIFF"),
    (0, b"#?RGBE", "a Radiance HDR image; convert it to PNG or TIFF"),
    (0, b"PK\x03\x04", "a zip archive (or an Office file); unpack it first"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"Rar!", "a RAR archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"8BPS", "a Photoshop file; export it as PNG or TIFF"),
    (0, b"\x00\x05\x16\x07", "macOS metadata of another file (AppleDouble)"),
    (0, b"SIMPLE  =", "a FITS file; convert it to TIFF"),
    (0, b"\x89HDF", "an HDF5 file"),
    (4, b"\x11\xaf", "an FLI animation; convert it to PNG"),
    (4, b"\x12\xaf", "an FLC animation; convert it to PNG"),
    (128, b"DICM", "a DICOM file; convert it to PNG or TIFF"),
    (0, b"\x1aE\xdf\xa3", "a Matroska/WebM video"),
    (0, b"\xff\x0a", "a JPEG XL image; convert it to PNG or JPEG"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image; convert it to PNG or JPEG"),
    (0, b"git-annex", "a git-annex pointer; fetch the real file first"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the real file with 'git lfs pull'"),
)
_HEIC = "a HEIC photo, as phones make them; pip install 'gapstone[heif]' to read it, or convert it to JPEG or PNG"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), _HEIC),
    b"avif": "an AVIF image whose header cannot be read",
    b"avis": "an AVIF image whose header cannot be read",
}
_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
)


def file_type(head: bytes) -> str:
    """What a file is, given its first kilobyte, as the reason why it is no readable image.

    ```python
    file_type(b"")                         # 'the file is empty (0 bytes)'
    file_type(b"<!DOCTYPE html><html>…")   # 'not an image: an HTML page (what a failed download leaves)'
    ```
    """
    if not head:
        return "the file is empty (0 bytes)"
    for offset, signature, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return f"not an image that can be read here: {what}"
    if head[4:8] == b"ftyp":
        what = _BRANDS.get(head[8:12], "a video or another ISO media file (MP4, MOV, …)")
        return f"not an image that can be read here: {what}"
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        return "not an image: a WAV or AVI file"
    for signature, name in _IMAGES:
        if head.startswith(signature):
            return f"starts like a {name} image, but its header is damaged"
    if head[:4] == b"RIFF":
        return "starts like a WebP image, but its header is damaged"
    return _text_type(head)


def begins_like_image(head: bytes) -> bool:
    r"""Whether a file is meant to be an image, given its first kilobyte; it may be damaged.

    >>> begins_like_image(b"II*\x00"), begins_like_image(b"PK\x03\x04")
    (True, False)
    """
    if any(head.startswith(signature) for signature, _ in _IMAGES) or head.startswith(b"\x93NUMPY"):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def _text_type(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "not an image: an HTML page (what a failed download leaves)"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in head.lower()):
        return "not a raster image: an SVG drawing; render it to PNG first"
    if start.startswith((b"<?xml", b"{", b"[")) and b"\x00" not in head:
        return "not an image: XML or JSON text (what a failed download leaves)"
    if not head.strip(b"\x00"):
        return "not an image: only zero bytes (an interrupted copy or download)"
    if b"\x00" not in head and sum(b < 32 and b not in b"\t\r\n\f\x1b" for b in head) == 0:
        return "not an image: a text file"
    return "not an image in a format that can be read here (JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000, PNM, …)"
