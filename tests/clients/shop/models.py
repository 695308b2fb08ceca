"""What the shop keeps."""

from django.db import models


class Item(models.Model):
    number = models.IntegerField(unique=True)
    owner = models.CharField(max_length=40, db_index=True)
    made = models.DateTimeField(auto_now_add=True)


class Event(models.Model):
    item = models.ForeignKey(Item, on_delete=models.CASCADE, related_name="events")
    text = models.CharField(max_length=80)
