"""Packaging of reid_cckd; the tested versions stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
GPU_WHEELS = "sys_platform == 'linux' and platform_machine == 'x86_64'"  # faiss-gpu has no others
TEST = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "scikit-learn>=1.4", "lightning>=2.4", "accelerate>=1.0"]
EXPORT = ["onnx>=1.16", "onnxscript>=0.3"]
DEV = [*TEST, *EXPORT, "ruff>=0.6", "mypy>=1.11", "types-PyYAML"]

setup(
    name="reid-cckd",
    version="0.1.0",
    description="Correlation congruence knowledge distillation for person ReID, faces and image retrieval",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["reid_cckd", "reid_cckd.*"]),
    package_data={"reid_cckd": ["py.typed"]},
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "timm>=1.0.15",
        "pytorch-metric-learning>=2.8",
        f"faiss-gpu>=1.11; {GPU_WHEELS}",
        "faiss-cpu>=1.8; sys_platform != 'linux' or platform_machine != 'x86_64'",
        "albumentations>=2.0.5",
        "opencv-python-headless>=4.9",
        "pyyaml>=6",
        "numpy>=1.26",
        "pillow>=10",
        "safetensors>=0.4",
        "matplotlib>=3.8",
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={"test": TEST, "onnx": EXPORT, "dev": DEV},
    entry_points={"console_scripts": ["reid-cckd = reid_cckd.commands.__main__:main"]},
)
