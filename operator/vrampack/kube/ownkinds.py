"""vrampack's own kinds: what is on the wire, checked by the models of the API, and only once for each version."""

from collections.abc import Hashable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vrampack.api import names
from vrampack.api.gpunode import GPUNodeSpec, GPUNodeStatus
from vrampack.api.gpupool import GPUPoolSpec
from vrampack.api.modeldeployment import ModelDeploymentSpec
from vrampack.api.modelprofile import ModelProfileSpec, ModelProfileStatus
from vrampack.kube import wire
from vrampack.kube.parsed import Parsed
from vrampack.kube.views import problem_of
from vrampack.planning.snapshot import GPUNodeView, ModelView, PoolView, ProfileView

Model = TypeVar("Model", bound=BaseModel)


class OwnKinds:
    """Views of them. A value that can't be read is named in the view; the others are not hidden by it."""

    def __init__(self) -> None:
        self._parsed: Parsed[tuple[Any, str]] = Parsed()

    def model(self, found: wire.CustomObject) -> ModelView:
        meta = found.metadata
        spec, problem = self._spec(ModelDeploymentSpec, found)
        return ModelView(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            resource_version=meta.resource_version,
            generation=meta.generation,
            deleting=meta.deletion_timestamp is not None,
            refresh=(meta.annotations or {}).get(names.REFRESH, ""),
            spec=spec,
            raw_spec=found.spec,
            problem=problem,
            status=found.status,
        )

    def profile(self, found: wire.CustomObject) -> ProfileView:
        spec, problem = self._spec(ModelProfileSpec, found)
        meta = found.metadata
        # Measurements that can't be read are none: the estimate is computed then.
        status, _ = self._parse(
            ModelProfileStatus, found.status, field="status", version=(meta.uid, "status", meta.resource_version)
        )
        return ProfileView(
            name=meta.name,
            generation=meta.generation,
            spec=spec,
            problem=problem,
            measurements=status.measurements if status is not None else (),
            resource_version=meta.resource_version if status is not None else "",
        )

    def pool(self, found: wire.CustomObject) -> PoolView:
        meta = found.metadata
        spec, problem = self._spec(GPUPoolSpec, found)
        if spec is None:
            # Left out, its nodes would fall to another pool. Where not even the selector can be read it may mean any
            # node, which is what an empty one says.
            rest = {"nodeSelector": found.spec.get("nodeSelector", {})}
            spec, _ = self._parse(GPUPoolSpec, rest, field="spec", version=(meta.uid, "nodes", meta.generation))
        return PoolView(
            name=meta.name,
            generation=meta.generation,
            spec=spec or GPUPoolSpec(),
            problem=problem,
            status=found.status,
            resource_version=meta.resource_version,
        )

    def gpu_node(self, found: wire.CustomObject) -> GPUNodeView:
        meta = found.metadata
        spec, problem = self._spec(GPUNodeSpec, found)
        status, trouble = self._parse(
            GPUNodeStatus, found.status, field="status", version=(meta.uid, "status", meta.resource_version)
        )
        if spec is None or status is None:
            raise ValueError(problem or trouble)
        return GPUNodeView(
            name=meta.name,
            generation=meta.generation,
            spec=spec,
            status=status,
            raw_status=found.status,
            agent_alive=False,
        )

    def _spec(self, model: type[Model], found: wire.CustomObject) -> tuple[Model | None, str]:
        version = (found.metadata.uid, "spec", found.metadata.generation)
        return self._parse(model, found.spec, field="spec", version=version)

    def _parse(
        self, model: type[Model], value: wire.Json, *, field: str, version: Hashable
    ) -> tuple[Model | None, str]:
        """The value, or None and what is wrong with it."""

        def parse() -> tuple[Model | None, str]:
            try:
                return model.model_validate(value), ""
            except ValidationError as error:
                return None, problem_of(error, root=field)

        return self._parsed.get(version, parse)

    def forget_unused(self) -> None:
        """Ends a pass: what nobody asked for in it is gone."""
        self._parsed.forget_unused()
