# The image of kuberay.yaml: Ray's own, with this project and what constraints.txt pins.
#   docker build -t REGISTRY/sparse-transfer-study . && docker push REGISTRY/sparse-transfer-study
FROM rayproject/ray:2.60.0-py311-gpu
COPY --chown=ray . /home/ray/study
RUN python -m pip install --no-cache-dir -c study/constraints.txt -e 'study[nodes]'
