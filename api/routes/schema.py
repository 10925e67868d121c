from typing import Any

from fastapi import APIRouter, Request

from api.who import Who

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request, who: Who) -> dict[str, Any]:
    """The API's description of itself."""
    return request.app.openapi()  # type: ignore[no-any-return]
