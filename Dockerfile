# The quickstart: trains dense -> pruned -> quantized on the digits that come with qprune, and keeps the runs in /work.
#   docker build --tag qprune . && docker run --rm --volume "$PWD:/work" qprune
#   docker run --rm --volume "$PWD:/work" qprune qprune export digits/a75_w4a4
FROM python:3.11-slim
COPY . /qprune
RUN pip install --no-cache-dir "/qprune[onnx,plots]"
WORKDIR /work
CMD ["qprune", "fit", "digits/a75_w4a4", "--chain", "--resume"]
