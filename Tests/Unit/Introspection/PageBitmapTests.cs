using FCtrans.Agent.Memory;
using FCtrans.Agent.Tracking;
using Xunit;

namespace FCtrans.Unit.Tests.Introspection;

public sealed class PageBitmapTests
{
    [Fact]
    public void It_behaves_as_a_set_of_pages()
    {
        const int Pages = 1000;
        using var bitmap = new PageBitmap(Pages);
        using var other = new PageBitmap(Pages);
        var model = new bool[Pages];
        var random = new Random(1);
        for (int i = 0; i < 5000; i++)
        {
            int first = random.Next(Pages);
            var range = new PageRange(first, random.Next(Pages - first + 1));
            int operation = random.Next(5);
            switch (operation)
            {
                case 0:
                    bool value = random.Next(2) == 0;
                    bitmap.Fill(range, value);
                    Array.Fill(model, value, first, (int)range.Count);
                    break;
                case 1:
                    int clear = model.Skip(first).Take((int)range.Count).Count(set => !set);
                    Assert.Equal(clear, bitmap.SetCounting(range));
                    Array.Fill(model, true, first, (int)range.Count);
                    break;
                default:
                    other.Clear();
                    other.Fill(range, true);
                    if (operation == 2)
                    {
                        bitmap.Or(other);
                        Array.Fill(model, true, first, (int)range.Count);
                    }
                    else if (operation == 3)
                    {
                        bitmap.AndNot(other);
                        Array.Fill(model, false, first, (int)range.Count);
                    }
                    else
                    {
                        bitmap.CopyFrom(other);
                        Array.Fill(model, false);
                        Array.Fill(model, true, first, (int)range.Count);
                    }

                    break;
            }

            Assert.Equal(model.Count(set => set), bitmap.Count());
            var part = model.Skip(first).Take((int)range.Count);
            Assert.Equal(part.Count(set => set), bitmap.CountIn(range));
            Assert.Equal(part.All(set => set), bitmap.Covers(range));
            int begins = Array.IndexOf(model, true, first, (int)range.Count);
            Assert.Equal(begins >= 0, bitmap.NextRunIn(range, out var run));
            if (begins >= 0)
            {
                Assert.Equal(new PageRange(begins, model.Skip(begins).Take((int)range.End - begins).TakeWhile(set => set).Count()), run);
            }

            int next = Array.IndexOf(model, true, first);
            Assert.Equal(next, bitmap.NextSet(first));
            Assert.Equal(Array.IndexOf(model, false, first), bitmap.NextClear(first));
        }

        for (int page = 0; page < Pages; page++)
        {
            Assert.Equal(model[page], bitmap[page]);
        }
    }
}
