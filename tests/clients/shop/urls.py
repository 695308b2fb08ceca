"""Two requests: one that writes, and one that writes and fails."""

from contextlib import closing

from django.db import IntegrityError, transaction
from django.http import JsonResponse
from django.urls import path

from shop.models import Event, Item


def write(request, number):
    item = Item.objects.create(number=number, owner="write")
    try:
        with transaction.atomic():
            Event.objects.create(item=item, text="undone")
            Item.objects.create(number=number, owner="a second one")
        raise AssertionError("the constraint was not there")
    except IntegrityError:
        pass
    Event.objects.create(item=item, text="kept")
    return JsonResponse({"number": Item.objects.get(owner="write", number=number).number})


def write_and_raise(request, number):
    item = Item.objects.create(number=number, owner="raise")
    Event.objects.create(item=item, text="undone")
    # A server-side cursor is open when the request fails.
    with closing(Item.objects.order_by("number").iterator(chunk_size=10)) as items:
        assert next(items).number == 0
        raise RuntimeError("the view failed")


urlpatterns = [path("write/<int:number>", write), path("raise/<int:number>", write_and_raise)]
