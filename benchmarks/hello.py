"""What others are measured beside: a plain FastAPI application that reads one row through SQLAlchemy."""

import os

import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
engine = sa.create_engine(os.environ["FINETUNED_DATABASE_URL"])


class Hello(BaseModel):
    hello: str


@app.get("/hello")
def hello() -> Hello:
    with engine.begin() as connection:
        return Hello(hello=connection.scalar(sa.text("SELECT 'world'")))
