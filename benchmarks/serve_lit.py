"""The model of `benchmarks/serve.py` as LitServe's own guide has one, with batches."""

import io

import litserve as ls
import torch
from fastapi import Request
from PIL import Image


class Api(ls.LitAPI):
    """Pictures in, probabilities out."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=16, batch_timeout=0.005)
        self.folder = folder

    def setup(self, device: str) -> None:
        from serve import timm_model

        self.model, self.names, self.transform = timm_model(self.folder)

    def decode_request(self, request: Request):
        content = request["file"]
        content = content if isinstance(content, bytes) else content.file.read()
        return self.transform(Image.open(io.BytesIO(content)).convert("RGB"))

    def batch(self, inputs):
        return torch.stack(inputs)

    def predict(self, batch):
        with torch.inference_mode():
            return self.model(batch).softmax(1)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return dict(zip(self.names, output.tolist(), strict=True))


def run(folder: str, port: int) -> None:
    """Serve until the process ends."""
    server = ls.LitServer(Api(folder), accelerator="cpu")
    server.run(port=port, host="127.0.0.1", log_level="warning", generate_client_file=False, access_log=False)
