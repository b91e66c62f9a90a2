"""Three routes of the task API in FastAPI, SQLAlchemy and boto3, as one would write and tune them:
uvicorn with uvloop and httptools, a pooled connection, autocommit, no access log.

The schema is that of ../../../migrations.
"""

import os
import socket
from datetime import datetime
from typing import Annotated

import boto3
import uvicorn
from botocore.config import Config
from fastapi import Depends, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, Enum, Identity, create_engine, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgres://", "postgresql+psycopg://"),
    isolation_level="AUTOCOMMIT",
    pool_size=4,
)
sessions = sessionmaker(engine, expire_on_commit=False)
sqs = boto3.client("sqs", config=Config(tcp_keepalive=True))
queue_url = os.environ["QUEUE_URL"]


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    title: Mapped[str]
    description: Mapped[str | None]
    status: Mapped[str] = mapped_column(
        Enum("pending", "processing", "completed", "failed", name="task_status"), server_default="pending"
    )
    result: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    enqueued_at: Mapped[datetime | None] = mapped_column(deferred=True)
    created_by: Mapped[str | None] = mapped_column(deferred=True)


class NewTask(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=255)]
    description: Annotated[str, Field(max_length=10_000)] | None = None


class TaskResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    description: str | None
    status: str
    result: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime


def session():
    with sessions() as session:
        yield session


Database = Annotated[Session, Depends(session)]
app = FastAPI()


@app.get("/tasks/{id}")
def get_task(id: int, database: Database) -> TaskResponse:
    task = database.get(Task, id)
    if task is None:
        raise HTTPException(404)
    return task


@app.get("/tasks")
def list_tasks(database: Database, limit: Annotated[int, Query(ge=1, le=100)] = 100) -> list[TaskResponse]:
    return database.scalars(select(Task).order_by(Task.id).limit(limit)).all()


@app.post("/tasks", status_code=201)
def create_task(new: NewTask, database: Database, response: Response) -> TaskResponse:
    task = Task(title=new.title, description=new.description, created_by="bench")
    database.add(task)
    database.commit()
    database.refresh(task)
    sqs.send_message(QueueUrl=queue_url, MessageBody=f'{{"task_id":{task.id}}}')
    database.execute(update(Task).where(Task.id == task.id).values(enqueued_at=func.now()))
    database.commit()
    response.headers["location"] = f"/tasks/{task.id}"
    return task


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])
